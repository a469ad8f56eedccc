// A login as both TypeScript SDKs do it: they say where a browser is to go, and the test says where it came back to.

import { asked } from './steps.mjs';

const REDIRECT = 'http://localhost:7777/callback';

// What an SDK is given as `authProvider`: everything is kept in memory.
class Login {
  redirectUrl = REDIRECT;
  clientMetadata = { client_name: 'A peer', redirect_uris: [REDIRECT], grant_types: ['authorization_code', 'refresh_token'] };
  saveClientInformation(client) { this.client = client; }
  clientInformation() { return this.client; }
  saveTokens(tokens) { this.kept = tokens; }
  tokens() { return this.kept; }
  saveCodeVerifier(verifier) { this.verifier = verifier; }
  codeVerifier() { return this.verifier; }
  saveDiscoveryState(found) { this.found = found; }
  discoveryState() { return this.found; }
  redirectToAuthorization(url) { this.authorize = url.href; }
}

// `connect(options)` makes a transport with these options and connects it; if it must log in, it does so and connects again.
export async function connected(order, connect, finish) {
  if (!order.login) return connect({});
  const authProvider = new Login();
  try {
    return await connect({ authProvider });
  } catch (error) {
    if (!authProvider.authorize) throw error;
  }
  const { callback } = await asked({ authorize: authProvider.authorize });
  await finish(new URL(callback).searchParams);
  return connect({ authProvider });
}
