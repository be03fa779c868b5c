"use strict";

SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("page"),
  presets: [SwaggerUIBundle.presets.apis],
  deepLinking: true,
  // Without it Swagger UI may send the document to a validator on another host.
  validatorUrl: null,
});
