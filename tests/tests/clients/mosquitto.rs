//! Debian's mosquitto_pub, mosquitto_sub and mosquitto_rr.
