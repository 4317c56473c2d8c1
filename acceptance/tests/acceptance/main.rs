//! The real programs, in the words of the administrator's procedures.

mod certificates;
mod collections;
mod compliance_objects;
mod complying;
mod crashes;
mod enrolling;
mod fleet;
mod hostile_requests;
mod identity;
mod leaving;
mod local_users;
mod nodes;
mod old_disks;
mod power_cuts;
mod recovering;
mod refusing;
mod reminding;
mod renew_manually;
mod renewal_windows;
mod renewing;
mod serving;
mod tampering;
mod time;
mod uploading;
