//! Who is online, who was last seen when, and who may know it; over the loss of any node.

mod cast;
mod failover;
mod privacy;
mod watching;
