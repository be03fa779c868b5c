import { init } from "./redoc.standalone.js";

// Without the option Redoc reports its usage to another host.
init("openapi.json", { disableTelemetry: true }, document.getElementById("page"));
