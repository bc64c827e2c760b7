// A certified OpenID Provider over TLS on a free loopback port: `node provider.mjs CERTIFICATE`, a PEM file with
// certificate and key. Commands are JSON objects, one per line, on stdin. Each is answered by one line on stdout.
// The first line on stdout has the issuer. The process ends at the end of stdin.

import { createHmac, generateKeyPairSync, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';

import Provider, { interactionPolicy } from 'oidc-provider';
import { createMemoryAdapter } from 'oidc-provider/lib/adapters/memory_adapter.js';
import htmlSafe from 'oidc-provider/lib/helpers/html_safe.js';

console.info = () => {}; // hide notices about defaults: stdout is only for answers

const ACCOUNTS = {
  amina: { name: 'Amina Diallo', birthdate: '1984-03-09', address: { formatted: '3 Lake Road\nHill Valley' } },
  jonas: { name: 'Jonas Weber', birthdate: '1990-11-30', address: { formatted: '8 Mill Lane\nHill Valley' } },
};
const CODE = '246810';
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
const issuer = `https://localhost:${await port}`;

const COMMANDS = {
  // clients: metadata of RFC 7591. par: `offered`, `required` or `off`.
  // refresh_unasked: issue refresh tokens without offline_access.
  // initial_access_token: enables dynamic registration. apis: by `resource`, the oidc-provider options of an API.
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
reply({ issuer, code: CODE });
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
    apis = {}, clients, initial_access_token: initialAccessToken, par = 'offered', refresh_unasked: refreshUnasked = false,
  } = configured;
  provider = new Provider(issuer, {
    adapter,
    clients,
    assertJwtClientAuthClaimsAndHeader(ctx, claims, { alg }) {
      observed.assertions.push([ctx.path, alg]);
    },
    jwks: { keys },
    cookies: { keys: ['cookie signing key of the tests'] },
    acrValues: ['weak', 'strong'],
    claims: { openid: ['sub'], profile: ['name', 'birthdate'], address: ['address'] },
    features: {
      backchannelLogout: { enabled: true },
      devInteractions: { enabled: false },
      claimsParameter: { enabled: true },
      introspection: { enabled: true },
      jwtUserinfo: { enabled: true },
      registration: { enabled: initialAccessToken !== undefined, initialAccessToken },
      pushedAuthorizationRequests: { enabled: par !== 'off', requirePushedAuthorizationRequests: par === 'required' },
      resourceIndicators: {
        enabled: Object.keys(apis).length > 0,
        defaultResource: () => undefined,
        getResourceServerInfo: (ctx, resource) => apis[resource],
      },
      revocation: { enabled: true },
      rpInitiatedLogout: { logoutSource },
    },
    // Without the dispatcher that blocks private networks in production.
    fetch(url, { dispatcher, ...options }) {
      observed.fetched.push(url);
      return fetch(url, options);
    },
    findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, ...ACCOUNTS[id] }) }),
    interactions: { policy: policy(), url: (ctx, interaction) => `/interaction/${interaction.uid}` },
    issueRefreshToken: (ctx, client, source) => client.grantTypeAllowed('refresh_token')
      && (refreshUnasked || source.scopes.has('offline_access')),
    pairwiseIdentifier: (ctx, id, client) => createHmac('sha256', 'pairwise salt of the tests')
      .update(`${client.sectorIdentifier} ${id}`).digest('base64url'),
    pkce: { required: () => true },
    rotateRefreshToken: true,
    subjectTypes: ['pairwise', 'public'],
  });
  provider.on('session.saved', (session) => sessions.set(session.uid, session));
  for (const kind of ['access_token', 'refresh_token']) {
    provider.on(`${kind}.saved`, ({ jti }) => observed.tokens.push([kind, jti]));
  }
  provider.on('server_error', (ctx, error) => console.error(error));
  listener = provider.callback();
}

// The base policy, plus: a session without acr `strong` has to sign in again if `strong` is requested.
function policy() {
  const { Check, base } = interactionPolicy;
  const prompts = base();
  prompts.get('login').checks.add(new Check('acr_values', 'a stronger sign-in was requested', ({ oidc }) => (
    wantsStrong(oidc.params) && oidc.acr !== 'strong' && !oidc.result?.login
  )));
  return prompts;
}

function wantsStrong(params) {
  return (params.acr_values ?? '').split(' ').includes('strong');
}

async function serve(req, res) {
  const { pathname } = new URL(req.url, issuer);
  observed.requests.push(`${req.method} ${pathname}`);
  if (!pathname.startsWith('/interaction/')) {
    listener(req, res);
    return;
  }
  try {
    const interaction = await provider.interactionDetails(req, res);
    if (req.method === 'POST') {
      await (interaction.prompt.name === 'login' ? signIn : consent)(req, res, interaction);
    } else {
      send(res, interaction.prompt.name === 'login' ? LOGIN : consentPage(interaction));
    }
  } catch (error) {
    console.error(error);
    send(res, page('An error occurred', `<p>${htmlSafe(error.message)}</p>`), 400);
  }
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
    const acr = form.get('code') === CODE ? 'strong' : 'weak';
    await provider.interactionFinished(req, res, { login: { accountId: username, acr } });
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
