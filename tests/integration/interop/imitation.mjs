// What a real provider does differently from oidc-provider and has no option for: `imitate` adds it to a Provider object.
// provider_profiles.py has the deviations of each provider. All are optional:
//
// metadata: the document that the original publishes. Its URLs are replaced by those of this provider.
// metadata_path: the discovery document is there instead of at /.well-known/openid-configuration.
// metadata_issuer: true if the document names another issuer than ID Tokens do.
// endpoint_host: host name in the URLs of the endpoints.
// required_parameters, refused_parameters: by path, parameters without which, or with which, a request ends on an error
// page.
// access_token_revocation: `ignored`, or `refused` as `unsupported_token_type`.
// revokes_grant: false if the revocation of a refresh token leaves the other tokens of its grant as they are.
// accepted_prompts: others are refused.
// logout_uri_parameter: its name; the state is not returned then.
// assertion_header: header parameters that client assertions must have. assertion_audience: path of the only audience.
// omitted_claims: of ID Tokens.
// Without `client_secret_basic` in the metadata, the token endpoint refuses it, which oidc-provider does not.
// Without `authorization_response_iss_parameter_supported` in the metadata, authorization responses have no `iss`.

import { errors } from 'oidc-provider';

const DISCOVERY = '/.well-known/openid-configuration';
const URL_MEMBER = /^(issuer|jwks_uri|.+_endpoint)$/;
const OAUTH_DISCOVERY = '/.well-known/oauth-authorization-server';

// Merge JSON options into the options of oidc-provider. Lists are replaced.
export function merge(options, more) {
  for (const [name, value] of Object.entries(more)) {
    const isObject = value?.constructor === Object && options[name]?.constructor === Object;
    options[name] = isObject ? merge(options[name], value) : value;
  }
  return options;
}

export function checkAssertion({ assertion_audience: audience, assertion_header: names = [] }, claims, header) {
  if (names.some((name) => !(name in header)) || (audience && !String(claims.aud).endsWith(audience))) {
    throw new errors.InvalidClientAuth('the assertion is not one that the original accepts');
  }
}

export function revocationPolicy({ access_token_revocation: ofAccessTokens, revokes_grant: revokesGrant = true }) {
  return async (ctx, client, token) => {
    const isAllowed = token.clientId === client.clientId && !(ofAccessTokens && token.kind === 'AccessToken');
    if (isAllowed && !revokesGrant) {
      await token.destroy();
    }
    return isAllowed && revokesGrant;
  };
}

export function imitate(provider, {
  accepted_prompts: acceptedPrompts, access_token_revocation: ofAccessTokens, endpoint_host: endpointHost,
  logout_uri_parameter: logoutUri, metadata, metadata_issuer: otherIssuer = false,
  metadata_path: metadataPath = DISCOVERY, omitted_claims: omitted = [], refused_parameters: refused = {},
  required_parameters: required = {},
}) {
  const { payload } = provider.IdToken.prototype;
  provider.IdToken.prototype.payload = async function payloadWithoutClaims() {
    const claims = Object.entries(await payload.call(this));
    return Object.fromEntries(claims.filter(([name]) => !omitted.includes(name)));
  };
  provider.use(async (ctx, next) => {
    if (metadata && ctx.path === OAUTH_DISCOVERY) {
      return;
    }
    if (metadataPath !== DISCOVERY && [DISCOVERY, metadataPath].includes(ctx.path)) {
      ctx.path = ctx.path === metadataPath ? DISCOVERY : '/unknown';
    }
    if (endpointHost && ctx.path === DISCOVERY) {
      ctx.req.headers.host = ctx.req.headers.host.replace(/^[^:]+/, endpointHost);
    }
    const faults = (required[ctx.path] ?? []).filter((name) => !ctx.query[name]);
    faults.push(...(refused[ctx.path] ?? []).filter((name) => ctx.query[name]));
    if (acceptedPrompts && ctx.query.prompt) {
      faults.push(...ctx.query.prompt.split(' ').filter((prompt) => !acceptedPrompts.includes(prompt)));
    }
    if (faults.length > 0) {
      ctx.status = 400;
      ctx.body = `<h1>An error occurred</h1><p>${faults.join(', ')}</p>`;
      return;
    }
    const methods = metadata?.token_endpoint_auth_methods_supported ?? ['client_secret_basic'];
    if (ctx.path === '/token' && ctx.get('authorization') && !methods.includes('client_secret_basic')) {
      ctx.status = 401;
      ctx.body = { error: 'invalid_client' };
      return;
    }
    if (logoutUri && ctx.query[logoutUri]) {
      const { state, ...query } = ctx.query;
      ctx.query = { ...query, post_logout_redirect_uri: ctx.query[logoutUri] };
    }
    await next();
    if (metadata && ctx.path === DISCOVERY) {
      const urls = Object.entries(ctx.body).filter(([name]) => name in metadata && URL_MEMBER.test(name));
      ctx.body = { ...metadata, ...Object.fromEntries(urls), ...(otherIssuer && { issuer: metadata.issuer }) };
    }
    if (ofAccessTokens === 'refused' && ctx.oidc?.params?.token_type_hint === 'access_token') {
      ctx.status = 400;
      ctx.body = { error: 'unsupported_token_type' };
    }
    const location = ctx.response.get('location');
    if (location && metadata && !metadata.authorization_response_iss_parameter_supported) {
      const url = new URL(location, ctx.href);
      url.searchParams.delete('iss');
      ctx.set('location', url.href);
    }
  });
  return provider;
}
