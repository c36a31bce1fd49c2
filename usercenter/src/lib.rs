//! Who are you, and what may you do: users, their key pairs, sessions and policies.

pub mod keys;
pub mod password;
pub mod policy;
