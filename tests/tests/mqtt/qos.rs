//! The flows of QoS 0, 1 and 2 (4.3), resending (4.4) and order (4.6).
