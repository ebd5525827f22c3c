//! CONNACK (3.2): flags, reason codes, announced limits.
