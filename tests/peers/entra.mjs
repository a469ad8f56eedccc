// Microsoft Entra ID, played by oidc-provider, a certified OpenID provider, with Entra's paths,
// claims and refusals around it. Every visitor of its login is logged in at once as the account of
// the last `account` order. Orders and answers: see README.md.

import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { Provider, interactionPolicy } from 'oidc-provider';
import { follow } from './steps.mjs';

// stdout is for answers to orders, so messages of oidc-provider go to stderr.
console.info = console.error;

const CLAIMS = ['sub', 'tid', 'oid', 'ver', 'name', 'preferred_username', 'roles', 'groups', 'acct', 'idp'];
let account = {};

// The app registration. The redirect URIs are added when the gateway's port is known.
const app = {};

// An in-memory store like oidc-provider's own, except that the app is never cached.
const kept = new Map();
class Adapter {
  constructor(model) { this.model = model; }
  key(id) { return `${this.model}:${id}`; }
  async upsert(id, payload) { kept.set(this.key(id), payload); }
  async find(id) { return this.model === 'Client' ? (id === app.client_id ? app : undefined) : kept.get(this.key(id)); }
  async findByUid(uid) { return [...kept.values()].find((payload) => payload.uid === uid); }
  async consume(id) { kept.get(this.key(id)).consumed = Math.floor(Date.now() / 1000); }
  async destroy(id) { kept.delete(this.key(id)); }
  async revokeByGrantId(grantId) {
    for (const [key, payload] of kept) if (payload.grantId === grantId) kept.delete(key);
  }
}

function configuration() {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const policy = interactionPolicy.base();
  policy.add(new interactionPolicy.Prompt({ name: 'select_account', requestable: true }), 0);
  return {
    adapter: Adapter,
    claims: { openid: CLAIMS },
    conformIdTokenClaims: false,
    cookies: { keys: ['of these tests only'] },
    features: { devInteractions: { enabled: false }, resourceIndicators: { enabled: false } },
    interactions: { policy, url: (_ctx, { uid }) => `/interaction/${uid}` },
    jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), kid: 'k1', use: 'sig', alg: 'RS256' }] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    scopes: ['openid', 'profile', 'offline_access'],
    issueRefreshToken: async (_ctx, _client, code) => code.scopes.has('openid'),
    findAccount: (_ctx, accountId) => ({ accountId, claims: () => ({ ver: '2.0', ...account, sub: 'pairwise' }) }),
    async loadExistingGrant(ctx) {
      const grant = new ctx.oidc.provider.Grant({ clientId: app.client_id, accountId: ctx.oidc.session.accountId });
      grant.addOIDCScope('openid profile offline_access');
      await grant.save();
      return grant;
    },
  };
}

function refused(res, error, number) {
  const text = JSON.stringify(asEntra({ error }, number));
  res.writeHead(error === 'invalid_client' ? 401 : 400, { 'content-type': 'application/json' }).end(text);
}

function asEntra(answer, number) {
  return {
    ...answer, error_description: `AADSTS${number}: ${answer.error_description ?? answer.error}`, error_codes: [number],
    trace_id: randomUUID(), correlation_id: randomUUID(),
  };
}

// Adds Entra's numbers to the refusals of oidc-provider.
function numbered(res) {
  const end = res.end.bind(res);
  res.end = (chunk, ...rest) => {
    const answer = chunk && JSON.parse(chunk);
    if (!answer?.error) return end(chunk, ...rest);
    const number = { invalid_client: 7000215, invalid_grant: 70008 }[answer.error] ?? 900144;
    const text = JSON.stringify(asEntra(answer, number));
    res.setHeader('content-length', Buffer.byteLength(text));
    return end(text, ...rest);
  };
}

async function body(req) {
  const pieces = [];
  for await (const piece of req) pieces.push(piece);
  return Object.fromEntries(new URLSearchParams(Buffer.concat(pieces).toString()));
}

await follow({
  async start({ app: client_id, directory, secret }) {
    Object.assign(app, {
      client_id, client_secret: secret, redirect_uris: [], token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code', 'refresh_token'],
    });
    const server = createServer();
    await new Promise((resolve) => { server.listen(0, '127.0.0.1', resolve); });
    const authority = `http://127.0.0.1:${server.address().port}`;
    const under = `${authority}/${directory}`;
    const provider = new Provider(`${under}/v2.0`, configuration());
    const serve = provider.callback();
    server.on('request', async (req, res) => {
      const url = new URL(req.url, authority);
      switch (url.pathname.replace(`/${directory}`, '')) {
        case '/v2.0/.well-known/openid-configuration':
          return res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({
            issuer: `${under}/v2.0`, jwks_uri: `${under}/discovery/v2.0/keys`,
            authorization_endpoint: `${under}/oauth2/v2.0/authorize`, token_endpoint: `${under}/oauth2/v2.0/token`,
          }));
        case '/discovery/v2.0/keys':
          req.url = '/jwks';
          break;
        case '/oauth2/v2.0/authorize':
          if (url.searchParams.has('resource')) return refused(res, 'invalid_target', 9010010);
          req.url = `/auth${url.search}`;
          break;
        case '/oauth2/v2.0/token': {
          const form = await body(req);
          if (form.resource) return refused(res, 'invalid_target', 9010010);
          if (!form.scope) return refused(res, 'invalid_request', 900144);
          // OpenID Connect Core 1.0, section 11, grants `offline_access` only with
          // `prompt=consent`, so oidc-provider did not grant it; Entra does.
          if (form.grant_type === 'refresh_token') form.scope = form.scope.replace(' offline_access', '');
          req.body = form;
          req.url = '/token';
          numbered(res);
          break;
        }
        default:
          if (url.pathname.startsWith('/interaction/')) {
            const login = { accountId: account.oid };
            return provider.interactionFinished(req, res, { select_account: {}, login });
          }
      }
      return serve(req, res);
    });
    return { authority };
  },
  async register({ redirect_uris }) {
    app.redirect_uris = redirect_uris;
    return { registered: true };
  },
  async account({ claims }) {
    account = claims;
    return { logs_in: true };
  },
});
