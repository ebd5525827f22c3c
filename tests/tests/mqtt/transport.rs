//! Transports (4.2, 6): TCP, WebSocket, TLS.
