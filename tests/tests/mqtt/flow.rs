//! Flow control (4.9): Receive Maximum both ways, send quota.
