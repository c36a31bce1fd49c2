//! The usercenter as its clients see it, and its policies beside Casbin's.

mod casbin;
