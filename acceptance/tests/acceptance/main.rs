//! The real programs, in the words of the administrator's procedures.

mod certificates;
mod collections;
mod enrolling;
mod fleet;
mod hostile_requests;
mod identity;
mod leaving;
mod nodes;
mod recovering;
mod refusing;
mod reminding;
mod renewal_windows;
mod renewing;
mod serving;
mod time;
