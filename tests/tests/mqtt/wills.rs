//! Wills (3.1.2.5, 3.1.3.2): published, delayed, cancelled, durable.
