//! The real programs, in the words of the administrator's procedures.

mod certificates;
mod collections;
mod crashes;
mod enrolling;
mod hostile_requests;
mod identity;
mod leaving;
mod mass_renewal;
mod nodes;
mod old_disks;
mod refusing;
mod renewal_windows;
mod renewing;
mod serving;
mod time;
