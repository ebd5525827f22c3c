//! PUBACK, PUBREC, PUBREL, PUBCOMP (3.4 to 3.7): forms, reason codes, reason strings.
