// The login of both TypeScript SDKs: they name the URL for a browser, and the test replies with the
// callback URL.

import { asked } from './steps.mjs';

const REDIRECT = 'http://localhost:7777/callback';

// The `authProvider` of an SDK. It keeps everything in memory.
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

// `connect(options)` creates a transport with these options and connects it. If a login is
// required, this logs in and connects again.
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
