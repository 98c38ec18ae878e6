//! The rights of a member.

/// A member's role, as `tern.v1.Role`. The number is stored. A greater role may do more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(i16)]
pub enum Role {
    /// A member may send messages and leave.
    Member = 1,
    /// An admin may also remove members and set the group's policy, and do what needs an admin by the policy.
    Admin = 2,
    /// An owner may also set roles.
    Owner = 3,
}
