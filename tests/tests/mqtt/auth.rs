//! AUTH and enhanced authentication (3.15, 4.12).
