//! The house, and the program as a person starts it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where, and that is all it can do")]

mod floors;
mod up;
mod usercenter;
