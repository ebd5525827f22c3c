//! Real TLS handshakes in memory: who accepts whom, and which side refuses.

use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, ServerName};

use super::super::hot_certificate::HotCertificate;
use super::super::tls::ring_provider;
use super::*;

/// Runs a handshake in memory; the error is that of the side that failed first.
fn handshake(
    client: ClientConfig,
    server: ServerConfig,
) -> Result<(ClientConnection, ServerConnection), (Side, rustls::Error)> {
    let name = ServerName::try_from(CLOUD_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    for _ in 0..10 {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets().map_err(|e| (Side::Cloud, e))?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes).unwrap();
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|e| (Side::Edge, e))?;
        }
    }
    assert!(
        !client.is_handshaking() && !server.is_handshaking(),
        "the handshake did not end"
    );
    Ok((client, server))
}

#[test]
fn an_edge_connects_with_mutual_tls_and_the_cloud_knows_who_it_is() {
    let world = World::new();
    let keys = world.join("plant-3");
    let (client, server) = handshake(
        edge_client_config(&keys).unwrap(),
        cloud_server_config(&world.cloud, NOW).unwrap(),
    )
    .unwrap();
    assert_eq!(client.alpn_protocol(), Some(LINK_ALPN_DOWNLINK));
    assert_eq!(server.alpn_protocol(), Some(LINK_ALPN_DOWNLINK));
    assert_eq!(server.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    let chain = server.peer_certificates().unwrap();
    assert_eq!(EdgeIdentity::from_chain(chain), Ok(keys.identity));
}

#[test]
fn a_node_of_before_the_downlink_links_without_it() {
    let world = World::new();
    let keys = world.join("plant-3");
    let old = |protocols: &mut Vec<Vec<u8>>| protocols.retain(|protocol| protocol != LINK_ALPN_DOWNLINK);
    for (old_edge, old_cloud) in [(true, false), (false, true)] {
        let mut edge = edge_client_config(&keys).unwrap();
        let mut cloud = cloud_server_config(&world.cloud, NOW).unwrap();
        if old_edge {
            old(&mut edge.alpn_protocols);
        }
        if old_cloud {
            old(&mut cloud.alpn_protocols);
        }
        let (client, server) = handshake(edge, cloud).unwrap();
        assert_eq!(client.alpn_protocol(), Some(LINK_ALPN));
        assert_eq!(server.alpn_protocol(), Some(LINK_ALPN));
    }
}

#[test]
fn a_join_needs_no_certificate_but_the_right_ca() {
    let (world, stranger) = (World::new(), World::new());
    let token = world.token("a");
    let server = || cloud_server_config(&world.cloud, NOW).unwrap();
    let (_, accepted) = handshake(join_client_config(token.ca).unwrap(), server()).unwrap();
    assert_eq!(accepted.alpn_protocol(), Some(JOIN_ALPN));
    assert_eq!(
        EdgeIdentity::from_chain(accepted.peer_certificates().unwrap_or(&[])),
        Err(PeerError::None)
    );

    let other = join_client_config(stranger.cloud.ca().fingerprint()).unwrap();
    let (side, error) = handshake(other, server()).unwrap_err();
    assert_eq!(
        side,
        Side::Edge,
        "the edge must be the one that refuses, before it sends anything"
    );
    assert!(
        error.to_string().contains("the fingerprint that the token names"),
        "{error}"
    );
}

/// A man in the middle shows the real CA certificate, which is public, beside a certificate of his own.
#[test]
fn showing_the_right_ca_without_its_signature_is_refused() {
    let (world, attacker) = (World::new(), World::new());
    let own = attacker.cloud.ca().issue_server(NOW).unwrap();
    let chain = vec![own.cert[0].clone(), world.cloud.ca().certificate().clone()];
    let forged = rustls::sign::CertifiedKey::new(chain, own.key.clone());
    let mut server = ServerConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(forged)));
    server.alpn_protocols = vec![JOIN_ALPN.to_vec()];
    let (side, error) = handshake(join_client_config(world.cloud.ca().fingerprint()).unwrap(), server).unwrap_err();
    assert_eq!(side, Side::Edge);
    assert!(matches!(error, rustls::Error::InvalidCertificate(_)), "{error}");
}

#[test]
fn edges_and_clouds_of_another_ca_are_refused_on_their_own_side() {
    let (world, stranger) = (World::new(), World::new());
    let foreign = stranger.join("a");
    let server = cloud_server_config(&world.cloud, NOW).unwrap();
    let (side, _) = handshake(edge_client_config(&foreign).unwrap(), server).unwrap_err();
    assert_eq!(side, Side::Edge, "the edge sees a cloud that it did not join");

    // The same edge, made to trust this cloud: now the cloud must refuse it.
    let mut cheating = stranger.join("a");
    cheating.ca = world.cloud.ca().certificate().clone();
    let server = cloud_server_config(&world.cloud, NOW).unwrap();
    let (side, _) = handshake(edge_client_config(&cheating).unwrap(), server).unwrap_err();
    assert_eq!(side, Side::Cloud);
}

/// An edge holds a certificate that the cloud's CA signed; with it it must not be able to play the cloud.
#[test]
fn an_edge_certificate_cannot_pass_for_the_cloud_nor_the_reverse() {
    let world = World::new();
    let keys = world.join(CLOUD_NAME);
    let mut server = ServerConfig::builder_with_provider(ring_provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![keys.certificate.clone(), world.cloud.ca().certificate().clone()],
            keys.key.expose().clone_key(),
        )
        .unwrap();
    server.alpn_protocols = vec![JOIN_ALPN.to_vec(), LINK_ALPN.to_vec()];
    let victim = world.join("victim");
    let join = join_client_config(world.cloud.ca().fingerprint()).unwrap();
    for client in [join, edge_client_config(&victim).unwrap()] {
        assert_eq!(handshake(client, server.clone()).unwrap_err().0, Side::Edge);
    }
    let own = world.cloud.ca().issue_server(NOW).unwrap();
    assert_eq!(EdgeIdentity::from_chain(&own.cert), Err(PeerError::NotAnEdge));
}

#[test]
fn malformed_peer_certificates_are_errors() {
    assert_eq!(EdgeIdentity::from_chain(&[]), Err(PeerError::None));
    let junk = CertificateDer::from(vec![0x30, 0x82, 0xff, 0xff, 1, 2, 3]);
    assert_eq!(EdgeIdentity::from_chain(&[junk]), Err(PeerError::Malformed));
    let world = World::new();
    assert_eq!(
        EdgeIdentity::from_chain(std::slice::from_ref(world.cloud.ca().certificate())),
        Err(PeerError::NotAnEdge)
    );
}

#[test]
fn the_clouds_certificate_is_renewed_before_it_ends() {
    let world = World::new();
    let hot = HotCertificate::new(world.cloud.ca().clone(), NOW).unwrap();
    let first = hot.at(NOW);
    assert!(Arc::ptr_eq(&first, &hot.at(WallTime(NOW.0 + 200 * DAY_MS))));
    let second = hot.at(WallTime(NOW.0 + 300 * DAY_MS));
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &hot.at(WallTime(NOW.0 + 301 * DAY_MS))));
    // A clock that was far ahead and came back: the certificate is made anew for the time that is true now.
    assert!(!Arc::ptr_eq(&second, &hot.at(WallTime(0))));
}

/// Gateways without a battery clock start in 1970; they must be able to connect all the same.
#[test]
fn certificates_are_valid_from_1970_on() {
    let world = World::new();
    let keys = world.join("a");
    for certificate in [
        &keys.certificate,
        &keys.ca,
        &world.cloud.ca().issue_server(NOW).unwrap().cert[0],
    ] {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
        assert_eq!(parsed.validity().not_before.timestamp(), 0);
        assert!(parsed.validity().not_after.timestamp() > i64::try_from(NOW.0 / 1000).unwrap());
    }
}

#[test]
fn crypto_errors_say_what_to_do_on_both_sides() {
    for alert in [42, 45, 46, 48, 70, 116, 120] {
        let edge = explain_crypto_error(0x100 + alert, Side::Edge).unwrap();
        let cloud = explain_crypto_error(0x100 + alert, Side::Cloud).unwrap();
        assert_ne!(edge, cloud, "alert {alert}");
    }
    assert_eq!(explain_crypto_error(0x0a, Side::Edge), None);
    assert_eq!(explain_crypto_error(0x100 + 10, Side::Edge), None);
}
