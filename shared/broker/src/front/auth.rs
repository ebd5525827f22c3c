//! The hook that decides who may connect, and the default that lets everybody in.
//!
//! In: what a CONNECT says of its sender, and the authentication data of AUTH packets. Out: a decision. Called on the broker
//! thread, so an implementation must not wait. The state of an exchange belongs to its connection: at most one each, at CONNECT or
//! at a re-authentication, bounded in time by `first_packet_timeout`.

use std::fmt;

use crate::wire::Version;

/// What a CONNECT says of its sender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// Protocol version.
    pub version: Version,
    /// Client identifier, assigned where the client gave none.
    pub client_id: &'a str,
    /// User name.
    pub user_name: Option<&'a str>,
    /// Password.
    pub password: Option<&'a [u8]>,
    /// Authentication method of MQTT 5; when there is one, [`Authenticator::begin`] has the last word.
    pub method: Option<&'a str>,
}

impl fmt::Debug for ConnectRequest<'_> {
    /// Without the password, which is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("version", &self.version)
            .field("client_id", &self.client_id)
            .field("user_name", &self.user_name)
            .field("method", &self.method)
            .finish_non_exhaustive()
    }
}

/// Answer to a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It may go on.
    Accept,
    /// CONNACK with this reason code of MQTT 5, mapped for 3.1.1; mostly 0x86 or 0x87.
    Refuse(u8),
}

/// Answer to one step of an exchange of MQTT 5 (section 4.12).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// AUTH 0x18 with this data, left out when empty.
    Continue(Vec<u8>),
    /// The client is who it says: CONNACK, or AUTH 0x00 at a re-authentication, with this data, left out when empty.
    Done(Vec<u8>),
    /// CONNACK, or DISCONNECT at a re-authentication, with this reason code; mostly 0x87.
    Refuse(u8),
}

/// One run of an authentication method.
pub trait Exchange {
    /// The first call has the data of the CONNECT or of the AUTH that began it, each further one that of the next AUTH.
    fn step(&mut self, data: Option<&[u8]>) -> Step;
}

/// Decides who may connect.
pub trait Authenticator: fmt::Debug + Send + Sync {
    /// Every CONNECT that is well formed.
    fn connect(&self, request: &ConnectRequest<'_>) -> Decision;

    /// Begins an exchange, at CONNECT or at a re-authentication. `None`: the method is not known (0x8C).
    fn begin(&self, client_id: &str, method: &str) -> Option<Box<dyn Exchange>>;
}

/// Everybody may connect; no method is known.
#[derive(Debug, Clone, Copy)]
pub struct AllowAll;

impl Authenticator for AllowAll {
    fn connect(&self, _: &ConnectRequest<'_>) -> Decision {
        Decision::Accept
    }

    fn begin(&self, _: &str, _: &str) -> Option<Box<dyn Exchange>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        let request = ConnectRequest {
            version: Version::V5,
            client_id: "c",
            user_name: Some("u"),
            password: Some(b"secret"),
            method: None,
        };
        let shown = format!("{request:?}");
        assert!(shown.contains("\"u\"") && !shown.contains("115"), "{shown}");
    }
}
