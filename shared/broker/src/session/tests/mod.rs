//! Tests of the session core: a world of one core, a model of the store and recorded connections, without sockets or clocks.

mod harness;
mod store_model;

mod connect;
mod publish;
