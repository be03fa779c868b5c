"use strict";

// Swagger UI colours itself by this class, and asks nobody whether it is dark.
const dark = matchMedia("(prefers-color-scheme: dark)");
const colour = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", colour);
colour();

/** By operation: shows the text of the stream that it is receiving. */
const views = new Map();
let running = "";

/** Show an event stream as it comes: Swagger UI shows a response when it is complete. */
async function follow(response, show) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (let piece; !(piece = await reader.read()).done; ) show((text += piece.value));
  } catch {
    // Swagger UI tells it.
  } finally {
    show("");
  }
}

const streams = {
  statePlugins: {
    spec: {
      wrapActions: {
        executeRequest: (execute) => (request) => {
          running = `${request.method} ${request.pathName}`;
          return execute(request);
        },
      },
      // The media type that is shown first, where there is one; else the first of those that there are.
      wrapSelectors: { currentProducesFor: () => () => "text/event-stream" },
    },
  },
  wrapComponents: {
    responses: (Responses, { React }) => (props) => {
      const [text, show] = React.useState("");
      views.set(`${props.method} ${props.path}`, show);
      const live = ["div", { className: "responses-inner live-stream" }];
      return React.createElement(
        React.Fragment,
        null,
        text && React.createElement(...live, React.createElement("pre", { className: "microlight" }, text)),
        React.createElement(Responses, props),
      );
    },
  },
};

SwaggerUIBundle({
  url: "openapi.json",
  domNode: document.getElementById("page"),
  presets: [SwaggerUIBundle.presets.apis],
  plugins: [streams],
  requestInterceptor: (request) => {
    const show = views.get(running);
    request.userFetch = async (url, options) => {
      const response = await fetch(url, options);
      const isStream = response.headers.get("Content-Type")?.startsWith("text/event-stream");
      if (show && isStream) follow(response.clone(), show);
      return response;
    };
    return request;
  },
  deepLinking: true,
  // Without it Swagger UI may send the document to a validator on another host.
  validatorUrl: null,
});
