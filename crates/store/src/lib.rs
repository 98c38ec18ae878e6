//! Postgres, as every role uses it. The statements of a role are in the role's own `store`.
//!
//! - [`postgres`]: flags, pools, the options of hot connections, migrations, and whether Postgres is durable
//! - [`metrics`]: what is exported of it

pub mod metrics;
pub mod postgres;
