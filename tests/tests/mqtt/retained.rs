//! Retained messages (3.3.1.3): stored, replaced, removed, handed out.
