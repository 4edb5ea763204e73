"use strict";
// The addresses of the API, as OpenAPI describes them.

async function show() {
  const described = await ask("/api/openapi.json");
  const routes = Object.entries(described.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, route]) => ({ path, method, route })));
  byId("routes").replaceChildren(...routes.map(({ path, method, route }) => {
    const parameters = (route.parameters ?? []).map((each) => element("li", {}, element("code", {}, each.name), each.description ? ` ${each.description}` : ""));
    return element("div", { class: "route" },
      element("h3", {}, element("code", {}, `${method.toUpperCase()} ${path}`), ` ${route.summary ?? ""}`),
      element("p", {}, (route.description ?? "").replaceAll("``", "")),
      parameters.length ? element("details", {}, element("summary", {}, "parameters"), element("ul", {}, ...parameters)) : null);
  }));
  document.documentElement.dataset.ready = "api";
}

addEventListener("DOMContentLoaded", () => show().catch(complain));
