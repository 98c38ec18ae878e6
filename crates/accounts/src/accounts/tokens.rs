//! Makes and exchanges the access and refresh tokens of devices.

use std::time::Duration;

use tern_identity::token::Signer;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, Timestamp, UserId};

use super::{Accounts, no_such_device};
use crate::domain::refresh::{self, Linked, Stored, TokenHash, Verdict};
use crate::metrics;
use crate::secrets::{RefreshMint, RefreshToken};

/// The tokens of a device.
#[derive(Clone)]
pub struct Pair {
    /// The access token, a JWT.
    pub access: String,
    /// The time from which on the access token is no longer valid.
    pub access_expires_at: Timestamp,
    /// The refresh token.
    pub refresh: String,
}

/// A maker of both kinds of token, with the node's signing key.
pub struct TokenMaker {
    signer: Signer,
    mint: RefreshMint,
    access_ttl: Duration,
}

impl TokenMaker {
    /// Makes a token maker from an Ed25519 private key in PKCS#8 PEM. Access tokens are valid for `access_ttl`. Returns
    /// `Err` if `pem` is not such a key.
    pub fn from_pem(pem: &str, access_ttl: Duration) -> anyhow::Result<Self> {
        Ok(Self {
            signer: Signer::from_pem(pem)?,
            mint: RefreshMint::from_pem(pem)?,
            access_ttl,
        })
    }

    fn pair(&self, user: UserId, token: &RefreshToken, now: Timestamp) -> Result<Pair, ApiError> {
        let access = self
            .signer
            .sign(user, token.device, now, self.access_ttl)
            .map_err(|error| {
                tracing::error!(%error, "access token could not be signed");
                ApiError::new(ErrorReason::Internal, "a fault of the server")
            })?;
        // The times of a token are whole seconds.
        let access_expires_at = Timestamp((now + self.access_ttl).0.div_euclid(1000) * 1000);
        Ok(Pair {
            access,
            access_expires_at,
            refresh: token.reveal(),
        })
    }
}

impl Accounts {
    /// Makes the tokens of a device that was just linked. If the request was repeated, the refresh token is the present
    /// one again, because the answer before may have arrived, and the device may have used its token.
    pub(super) async fn first_tokens(&self, device: DeviceId, now: Timestamp) -> Result<Pair, ApiError> {
        let mut tx = self.store.begin().await?;
        let found = self
            .store
            .lock_tokens(&mut tx, device)
            .await?
            .ok_or_else(no_such_device)?;
        if !found.active {
            return Err(revoked());
        }
        let made = |number| self.tokens.mint.token(device, number);
        let token = match refresh::linked(found.stored.as_ref(), |number| made(number).hash()) {
            Linked::Present(number) => made(number),
            Linked::Next(number) => {
                let next = made(number);
                let previous = found.stored.map(|stored| stored.current);
                self.store
                    .save_tokens(&mut tx, device, &stored(&next, previous, now))
                    .await?;
                next
            }
        };
        self.store.commit(tx).await?;
        self.tokens.pair(found.user, &token, now)
    }

    /// Exchanges a refresh token for a new pair. Returns `Err` with REFRESH_TOKEN_INVALID if it is not valid, with
    /// REFRESH_TOKEN_REUSED if it was copied, which also revokes the device, with DEVICE_REVOKED if the device was
    /// revoked, and with USER_SUSPENDED if its user is suspended.
    pub async fn refresh(&self, presented: &str, now: Timestamp) -> Result<Pair, ApiError> {
        let exchanged = self.exchange(presented, now).await;
        metrics::refresh(match &exchanged {
            Ok(_) => "exchanged",
            Err(error) => tern_proto::error::reason_name(error.reason),
        });
        exchanged
    }

    async fn exchange(&self, presented: &str, now: Timestamp) -> Result<Pair, ApiError> {
        let token = RefreshToken::parse(presented).ok_or_else(unknown)?;
        let device = token.device;
        let shown = self.tokens.mint.inspect(&token);
        let mut tx = self.store.begin().await?;
        let found = self
            .store
            .lock_tokens(&mut tx, device)
            .await?
            .ok_or_else(unknown)?;
        let known = found.stored.ok_or_else(unknown)?;
        let verdict = refresh::judge(&known, &shown, now);
        if !found.active && verdict != Verdict::Unknown {
            return Err(revoked());
        }
        if verdict != Verdict::Unknown && verdict != Verdict::Reused {
            self.check_suspended(&mut tx, found.user).await?;
        }
        let next = match verdict {
            Verdict::Rotate { next } => {
                let next = self.tokens.mint.token(device, next);
                self.store
                    .save_tokens(&mut tx, device, &stored(&next, Some(shown.hash), now))
                    .await?;
                next
            }
            Verdict::SamePairAgain => {
                let again = self.tokens.mint.token(device, known.rotation);
                if again.hash() != known.current {
                    // The stored token was made with an older signing key, so it cannot be recomputed. A token made
                    // with the present key takes its place.
                    let replaced = Stored {
                        current: again.hash(),
                        ..known
                    };
                    self.store.save_tokens(&mut tx, device, &replaced).await?;
                }
                again
            }
            Verdict::Reused => {
                drop(tx);
                return Err(self.revoke_copied(device, now).await);
            }
            Verdict::Unknown => return Err(unknown()),
        };
        self.store.commit(tx).await?;
        self.tokens.pair(found.user, &next, now)
    }

    /// Revokes a device whose token was copied, and returns the error for the caller. Once the revocation is stored,
    /// the caller gets REFRESH_TOKEN_REUSED even if spreading it fails, because an accounts node finishes it later.
    async fn revoke_copied(&self, device: DeviceId, now: Timestamp) -> ApiError {
        let revoked = match self
            .begin_revocation(device, None, "refresh_token_reused", now)
            .await
        {
            Ok(revoked) => revoked,
            Err(error) => return error,
        };
        if let Err(error) = self.spread_revocation(device, revoked, now).await {
            tracing::warn!(%device, %error, "revocation not finished yet");
        }
        ApiError::new(
            ErrorReason::RefreshTokenReused,
            "the refresh token was used before; the device is revoked",
        )
    }
}

fn stored(token: &RefreshToken, previous: Option<TokenHash>, now: Timestamp) -> Stored {
    Stored {
        rotation: token.rotation,
        current: token.hash(),
        previous,
        issued_at: now,
    }
}

fn unknown() -> ApiError {
    ApiError::new(
        ErrorReason::RefreshTokenInvalid,
        "the refresh token is unknown or has ended",
    )
}

pub(super) fn revoked() -> ApiError {
    ApiError::new(ErrorReason::DeviceRevoked, "the device was revoked")
}
