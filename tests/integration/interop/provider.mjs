// A certified OpenID Provider over TLS on a free loopback port: `node provider.mjs CERTIFICATE`, a PEM file with
// certificate and key. Commands are JSON objects, one per line, on stdin. Each is answered by one line on stdout.
// The first line on stdout has the issuer. The process ends at the end of stdin.

import { createHmac, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';

import Provider, { interactionPolicy } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';
import htmlSafe from 'oidc-provider/lib/helpers/html_safe.js';

import { checkAssertion, imitate, merge, revocationPolicy } from './imitation.mjs';
import { MTLS, mtlsAliases } from './mutual_tls.mjs';

console.info = () => {}; // hide notices about defaults: stdout is only for answers

const ACCOUNTS = {
  amina: { name: 'Amina Diallo', birthdate: '1984-03-09', address: { formatted: '3 Lake Road\nHill Valley' } },
  jonas: { name: 'Jonas Weber', birthdate: '1990-11-30', address: { formatted: '8 Mill Lane\nHill Valley' } },
};
const CODE = '246810';
const LEVELS = { weak: 'weak', strong: 'strong' };
const NONCE_SECRET = randomBytes(32);
const KINDS = [
  ['rsa', { modulusLength: 2048 }],
  ['ec', { namedCurve: 'P-256' }],
  ['ed25519', {}],
];

const LOGIN = page('Sign in', `
  <form method="post">
  <p><label>Name <input name="username" autocomplete="username"></label></p>
  <p>${button('step', 'password', 'Sign in')}</p>
  </form>`);
const CHOOSE_ACCOUNT = page('Choose an account', `<form method="post">${button('step', 'continue', 'Continue')}</form>`);
const SECOND_FACTOR = page('One more step', `
  <form method="post">
  <p><label>Code from your device <input name="code" autocomplete="one-time-code"></label></p>
  <p>${button('step', 'code', 'Continue')}</p>
  </form>`);

const adapter = createMemoryAdapter(15); // shared by all Provider objects, so that issued tokens are kept
let keys = newKeys();
let configured;
let provider;
let listener;
let sessions; // by uid, as last saved
let observed; // since the last `configure`
const pendingUsernames = new Map(); // uid of the interaction → username, until the second factor

const { promise: port, resolve: listening } = Promise.withResolvers();
const certificate = readFileSync(process.argv[2]);
const server = createServer({ key: certificate, cert: certificate }, serve);
server.listen(0, '127.0.0.1', () => listening(server.address().port));
const origin = `https://localhost:${await port}`;
const aliases = await mtlsAliases(certificate, serve);

const INTERACTIONS = {
  select_account: { step: chooseAccount, form: () => CHOOSE_ACCOUNT },
  login: { step: signIn, form: () => LOGIN },
  consent: { step: consent, form: consentPage },
};
const COMMANDS = {
  // clients: metadata of RFC 7591. par: `offered`, `required` or `off`.
  // refresh_unasked: issue refresh tokens without offline_access.
  // dpop_nonce: each DPoP proof needs a nonce. fapi2: enforce the FAPI 2.0 Security Profile.
  // initial_access_token: enables dynamic registration. apis: by `resource`, the oidc-provider options of an API.
  // issuer_path: path of the issuer. levels: the acr of a sign-in without and with the second factor.
  // trust_mark: `vtm` of ID Tokens, whose `vot` is then that acr. options: for oidc-provider. imitation: see imitation.mjs.
  configure(options) {
    configured = options;
    sessions = new Map();
    observed = { requests: [], tokens: [], assertions: [], fetched: [] };
    build();
  },
  // Replace the signing keys.
  rotate() {
    keys = newKeys();
    build();
  },
  // Drop the cached client keys, as when the cache expires.
  forget_client_keys: build,
  // Make all sessions older.
  async age_sessions({ seconds }) {
    for (const session of sessions.values()) {
      session.loginTs -= seconds;
      await session.persist();
    }
  },
  observed: () => observed,
};

COMMANDS.configure({ clients: [] });
reply({ issuer: origin, code: CODE });
for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  try {
    reply((await COMMANDS[command](options)) ?? {});
  } catch (error) {
    reply({ error: `${command}: ${error.stack}` });
  }
}
process.exit();

function reply(answer) {
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}

function newKeys() {
  return KINDS.map(([kind, options]) => ({
    ...generateKeyPairSync(kind, options).privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig',
  }));
}

function build() {
  const {
    apis = {}, clients, imitation = {}, initial_access_token: initialAccessToken,
    issuer_path: path = '', options = {}, par = 'offered', refresh_unasked: refreshUnasked = false,
    trust_mark: vtm = '',
    dpop_nonce: dpopNonce = false, fapi2 = false,
  } = configured;
  provider = imitate(new Provider(`${origin}${path}`, merge({
    adapter,
    clients,
    clientAuthMethods: [
      'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none', 'tls_client_auth', 'self_signed_tls_client_auth',
    ],
    assertJwtClientAuthClaimsAndHeader(ctx, claims, header) {
      checkAssertion(imitation, claims, header);
      observed.assertions.push([ctx.path, header.alg]);
    },
    jwks: { keys },
    enabledJWA: {
      idTokenSigningAlgValues: ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519', 'RS512', 'PS384'],
      idTokenEncryptionAlgValues: ['RSA-OAEP-256', 'ECDH-ES', 'ECDH-ES+A256KW'],
      userinfoEncryptionAlgValues: ['RSA-OAEP-256', 'ECDH-ES', 'ECDH-ES+A256KW'],
    },
    cookies: { keys: ['cookie signing key of the tests'] },
    acrValues: Object.values(levels()),
    claims: { openid: ['sub'], profile: ['name', 'birthdate'], address: ['address'] },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: false },
      dPoP: { enabled: true, nonceSecret: NONCE_SECRET, requireNonce: () => dpopNonce },
      fapi: { enabled: fapi2, profile: '2.0' },
      claimsParameter: { enabled: true },
      encryption: { enabled: true },
      introspection: { enabled: true },
      jwtUserinfo: { enabled: true },
      mTLS: MTLS,
      registration: { enabled: initialAccessToken !== undefined, initialAccessToken },
      pushedAuthorizationRequests: { enabled: par !== 'off', requirePushedAuthorizationRequests: par === 'required' },
      requestObjects: { enabled: true },
      resourceIndicators: {
        enabled: Object.keys(apis).length > 0,
        defaultResource: () => undefined,
        getResourceServerInfo: (ctx, resource) => apis[resource],
      },
      revocation: { enabled: true, allowedPolicy: revocationPolicy(imitation) },
      rpInitiatedLogout: { logoutSource },
    },
    // Without the dispatcher that blocks private networks in production.
    fetch(url, { dispatcher, ...options }) {
      observed.fetched.push(url);
      return fetch(url, options);
    },
    discovery: { mtls_endpoint_aliases: aliases },
    findAccount: (ctx, id, token) => ({
      accountId: id,
      claims: () => ({ sub: id, ...ACCOUNTS[id], ...(vtm && { vot: token?.acr, vtm }) }),
    }),
    interactions: { policy: policy(), url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: (ctx, client, source) => client.grantTypeAllowed('refresh_token')
      && (refreshUnasked || source.scopes.has('offline_access')),
    pairwiseIdentifier: (ctx, id, client) => createHmac('sha256', 'pairwise salt of the tests')
      .update(`${client.sectorIdentifier} ${id}`).digest('base64url'),
    pkce: { required: () => true },
    rotateRefreshToken: true,
    subjectTypes: ['pairwise', 'public'],
  }, options)), imitation);
  provider.on('session.saved', (session) => sessions.set(session.uid, session));
  for (const kind of ['access_token', 'refresh_token']) {
    provider.on(`${kind}.saved`, ({ jti }) => observed.tokens.push([kind, jti]));
  }
  provider.on('server_error', (ctx, error) => console.error(error));
  listener = provider.callback();
}

// The base policy, plus: the account can be chosen; a session without the strong acr has to sign in again if that is
// requested.
function policy() {
  const { Check, Prompt, base } = interactionPolicy;
  const prompts = base();
  prompts.add(new Prompt({ name: 'select_account', requestable: true }), 1);
  prompts.get('login').checks.add(new Check('acr_values', 'a stronger sign-in was requested', ({ oidc }) => (
    wantsStrong(oidc.params) && oidc.acr !== levels().strong && !oidc.result?.login
  )));
  return prompts;
}

function levels() {
  return configured.levels ?? LEVELS;
}

function wantsStrong(params) {
  const vectors = JSON.parse(params.vtr ?? '[]');
  return (params.acr_values ?? '').split(' ').includes(levels().strong)
    || (vectors.includes(levels().strong) && !vectors.includes(levels().weak));
}

async function serve(req, res) {
  const { pathname } = new URL(req.url, origin);
  observed.requests.push(`${req.method} ${pathname}`);
  if (!pathname.startsWith('/interaction/')) {
    const mounted = new URL(provider.issuer).pathname.replace(/\/$/, '');
    if (mounted && pathname.startsWith(`${mounted}/`)) {
      req.originalUrl = req.url;
      req.url = req.url.slice(mounted.length);
    }
    listener(req, res);
    return;
  }
  try {
    const interaction = await provider.interactionDetails(req, res);
    const { step, form } = INTERACTIONS[interaction.prompt.name];
    if (req.method === 'POST') {
      await step(req, res, interaction);
    } else {
      send(res, form(interaction));
    }
  } catch (error) {
    console.error(error);
    send(res, page('An error occurred', `<p>${htmlSafe(error.message)}</p>`), 400);
  }
}

async function chooseAccount(req, res) {
  await provider.interactionFinished(req, res, { select_account: {} });
}

async function signIn(req, res, { uid, params }) {
  const form = new URLSearchParams(await text(req));
  const username = form.get('username') ?? pendingUsernames.get(uid);
  if (!Object.hasOwn(ACCOUNTS, username)) {
    send(res, LOGIN);
  } else if (form.has('username') && wantsStrong(params)) {
    pendingUsernames.set(uid, username);
    send(res, SECOND_FACTOR);
  } else {
    pendingUsernames.delete(uid);
    const acr = levels()[form.get('code') === CODE ? 'strong' : 'weak'];
    await provider.interactionFinished(req, res, { login: { accountId: username, acr }, select_account: {} });
  }
}

async function consent(req, res, { grantId, params, prompt: { details }, session }) {
  const form = new URLSearchParams(await text(req));
  if (form.get('decision') !== 'allow') {
    await provider.interactionFinished(req, res, { error: 'access_denied' }, { mergeWithLastSubmission: false });
    return;
  }
  const grant = (grantId && await provider.Grant.find(grantId))
    || new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
  grant.addOIDCScope((details.missingOIDCScope ?? []).join(' '));
  grant.addOIDCClaims(details.missingOIDCClaims ?? []);
  for (const [resource, scopes] of Object.entries(details.missingResourceScopes ?? {})) {
    grant.addResourceScope(resource, scopes.join(' '));
  }
  await provider.interactionFinished(req, res, { consent: { grantId: await grant.save() } });
}

function consentPage({ params, prompt: { details } }) {
  const requested = [...(details.missingOIDCScope ?? []), ...(details.missingOIDCClaims ?? [])];
  return page('Share this data?', `
    <p>${htmlSafe(params.client_id)} asks for:</p>
    <ul id="requested">${requested.map((item) => `<li>${htmlSafe(item)}</li>`).join('')}</ul>
    <form method="post"><p>${button('decision', 'allow', 'Allow')} ${button('decision', 'deny', 'Deny')}</p></form>`);
}

function logoutSource(ctx, form) {
  ctx.body = page('Sign out here as well?', `${form}<p>${button('logout', 'yes', 'Yes, sign out', 'op.logoutForm')}</p>`);
}

function button(name, value, label, form = '') {
  return `<button name="${name}" value="${value}"${form && ` form="${form}"`}>${label}</button>`;
}

function page(title, body) {
  return `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title><h1>${title}</h1>${body}</html>`;
}

function send(res, body, status = 200) {
  res.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' }).end(body);
}
