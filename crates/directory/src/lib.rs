//! Who is this user? Today: the site's local accounts. A directory server is a second way to
//! answer the same question, beside this one.

mod local;

pub use local::{Password, PasswordHash, PasswordHasher, Rejected, TooManyWait};
