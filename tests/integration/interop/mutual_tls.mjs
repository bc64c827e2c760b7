// Mutual TLS of the certified provider (RFC 8705): the feature, and a second origin that requests client certificates,
// so that browsers are not asked for one.

import { createServer } from 'node:https';

const ENDPOINTS = {
  token_endpoint: '/token',
  userinfo_endpoint: '/me',
  revocation_endpoint: '/token/revocation',
  introspection_endpoint: '/token/introspection',
  pushed_authorization_request_endpoint: '/request',
};

export const MTLS = {
  enabled: true,
  certificateBoundAccessTokens: true,
  selfSignedTlsClientAuth: true,
  tlsClientAuth: true,
  getCertificate: (ctx) => ctx.socket.getPeerX509Certificate(),
  certificateAuthorized: (ctx) => ctx.socket.authorized,
  certificateSubjectMatches: (ctx, property, expected) => property === 'tls_client_auth_subject_dn'
    && ctx.socket.getPeerX509Certificate().subject.split('\n').reverse().join(',') === expected,
};

// Serve the endpoints of clients on a further port, and return `mtls_endpoint_aliases` (RFC 8705 5).
export async function mtlsAliases(certificate, serve) {
  const server = createServer({
    key: certificate, cert: certificate, requestCert: true, rejectUnauthorized: false,
  }, serve);
  await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
  const origin = `https://localhost:${server.address().port}`;
  return Object.fromEntries(Object.entries(ENDPOINTS).map(([name, path]) => [name, `${origin}${path}`]));
}
