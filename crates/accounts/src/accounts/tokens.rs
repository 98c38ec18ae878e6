//! Access and refresh tokens of a device.

use std::time::Duration;

use tern_node::token::Signer;
use tern_proto::ApiError;
use tern_proto::v1::ErrorReason;
use tern_types::{DeviceId, Timestamp, UserId};

use super::Accounts;
use super::devices::no_such_device;
use crate::domain::refresh::{self, Stored, TokenHash, Verdict};
use crate::metrics;
use crate::secrets::{RefreshMint, RefreshToken};

/// What a device proves itself with.
#[derive(Clone)]
pub struct Pair {
    pub access: String,
    pub access_expires_at: Timestamp,
    pub refresh: String,
}

/// Makes both kinds of token from the node's signing key.
pub struct TokenMaker {
    signer: Signer,
    mint: RefreshMint,
    access_ttl: Duration,
}

impl TokenMaker {
    /// From an Ed25519 private key in PKCS#8 PEM.
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
        // A token's times are whole seconds.
        let access_expires_at = Timestamp((now + self.access_ttl).0.div_euclid(1000) * 1000);
        Ok(Pair {
            access,
            access_expires_at,
            refresh: token.reveal(),
        })
    }
}

impl Accounts {
    /// Tokens for a device that was just linked. Linking again counts as an exchange: the answer before may yet
    /// arrive, and what was in it stays good for as long as after an exchange.
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
        let next = found.stored.map_or(1, |stored| stored.rotation + 1);
        let token = self.tokens.mint.token(device, next);
        let previous = found.stored.map(|stored| stored.current);
        self.store
            .save_tokens(&mut tx, device, &stored(&token, previous, now))
            .await?;
        self.store.commit(tx).await?;
        self.tokens.pair(found.user, &token, now)
    }

    /// Exchanges a refresh token for a new pair.
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
                    // Made with a signing key that was changed since. This one takes its place.
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

    /// Once the revocation has begun the answer is the same however far it comes now: it is finished later.
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

fn revoked() -> ApiError {
    ApiError::new(ErrorReason::DeviceRevoked, "the device was revoked")
}
