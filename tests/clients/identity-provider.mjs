// A real OpenID Connect provider with people who only need a name to log in. Prints its issuer when it listens.

import { createServer } from "node:http";
import Provider from "oidc-provider";

const { port, client, callback } = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: client,
      token_endpoint_auth_method: "none", // a page keeps no secret: PKCE
      application_type: "native", // which may come back to this machine over http
      redirect_uris: [callback],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
    },
  ],
  pkce: { required: () => true },
  cookies: { keys: ["of this run"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: `${id} of the provider` }) }),
  claims: { openid: ["sub"], profile: ["name"] },
  conformIdTokenClaims: false, // the name in the token, as most providers have it
  features: {
    devInteractions: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => "https://chat.example.org",
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({ scope: "ask", accessTokenFormat: "jwt", accessTokenTTL: 600 }),
    },
  },
});

createServer(provider.callback()).listen(port, "127.0.0.1", () => console.log(issuer));
