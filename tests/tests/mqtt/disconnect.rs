//! DISCONNECT (3.14) and errors (4.13).
