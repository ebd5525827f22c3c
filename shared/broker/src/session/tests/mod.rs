//! Tests of the session core: a world of one core, a model of the store and recorded connections, without sockets or clocks.

mod connect;
mod crash;
mod deliver;
mod expire;
mod harness;
mod hostile;
mod inflow;
mod limits;
mod model;
mod model_check;
mod publish;
mod resends;
mod resume;
mod retain;
mod share;
mod standard;
mod standard_run;
mod store_model;
mod subscribe;
mod sys;
mod wills;
