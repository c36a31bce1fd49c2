//! One suite for every log, and what only the log on disk must hold.

mod contract;
mod file;
