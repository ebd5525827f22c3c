//! Shared subscriptions (4.8.2).
