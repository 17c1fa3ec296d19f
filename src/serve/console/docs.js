// `/openapi.json` for a reader.

const anchor = (name) => `schema-${name}`;
const nameOf = (ref) => ref.split("/").pop();
const METHODS = ["get", "post", "put", "patch", "delete"];

/** What a reference in the description leads to. */
function resolve(root, value) {
  for (let hops = 0; value?.$ref && hops < 8; hops += 1) {
    value = value.$ref.slice(2).split("/").reduce((at, part) => at?.[part.replaceAll("~1", "/")], root);
  }
  return value ?? {};
}

/** A type in words, with links to what has a name. */
function typeOf(schema) {
  if (!schema) return "anything";
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return schema.$ref.startsWith("#/components/schemas/") && !schema.$ref.includes("/properties/")
      ? h("a", { href: `#${anchor(name)}` }, name)
      : h("span", {}, name);
  }
  const either = schema.oneOf ?? schema.anyOf;
  if (schema.enum && typeof schema.enum === "object") return h("span", {}, between(schema.enum.map((word) => h("code", {}, JSON.stringify(word))), " "));
  if ("const" in schema) return h("code", {}, JSON.stringify(schema.const));
  if (schema.type === "array" || schema.items) return h("span", {}, "list of ", typeOf(schema.items));
  if (either && !schema.type) return h("span", {}, between(either.map(typeOf), " or "));
  return h("span", {}, [schema.type ?? "anything"].flat().join(" or "));
}

const between = (nodes, text) => nodes.flatMap((node, at) => (at ? [text, node] : [node]));

function boundsOf(schema) {
  const inner = (schema.anyOf ?? []).find((each) => "minimum" in each) ?? schema;
  const parts = [];
  if ("minimum" in inner && "maximum" in inner) parts.push(`${count(inner.minimum)} to ${count(inner.maximum)}`);
  else if (inner.minimum > 0) parts.push(`at least ${count(inner.minimum)}`);
  if (inner !== schema && (schema.anyOf ?? []).some((each) => each.const === 0)) parts.unshift("0, or");
  if ("minItems" in schema || "maxItems" in schema) parts.push(`${schema.minItems ?? 0} to ${count(schema.maxItems ?? Infinity)} entries`);
  if ("maxLength" in schema) parts.push(`at most ${count(schema.maxLength)} characters`);
  if ("maxProperties" in schema) parts.push(`at most ${schema.maxProperties} fields`);
  if ("default" in schema && schema.default !== null) parts.push(`default ${JSON.stringify(schema.default)}`);
  return parts.join(", ").replace("to ∞ entries", "or more entries");
}

const prose = (text) => {
  const node = markdown(text ?? "", location.href);
  for (const name of ["tabindex", "role", "aria-label"]) node.removeAttribute(name);
  return node;
};

function fieldTable(rows) {
  const head = h("tr", {}, ["field", "type", "meaning"].map((name) => h("th", { scope: "col" }, name)));
  const body = rows.map(([name, need, schema, text]) => {
    const bounds = boundsOf(schema);
    return h(
      "tr",
      {},
      h("td", {}, name, need ? h("span", { class: "need" }, " needed") : null),
      h("td", {}, typeOf(schema), bounds ? h("p", { class: "note" }, bounds) : null),
      h("td", {}, prose(text ?? schema.description)),
    );
  });
  return h("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Fields" }, h("table", {}, h("thead", {}, head), h("tbody", {}, body)));
}

function operationCard(root, path, method, operation) {
  const card = h(
    "article",
    { class: "card", id: operation.operationId },
    h("h3", {}, h("span", { class: "method", "data-method": method }, method.toUpperCase()), h("code", {}, path), h("span", { class: "note" }, operation.summary)),
    prose(operation.description),
  );
  const parameters = (operation.parameters ?? []).map((each) => resolve(root, each));
  if (parameters.length) {
    const rows = parameters.map((each) => [`${each.name} (${each.in})`, each.required, each.schema ?? {}, each.description]);
    card.append(h("h4", {}, "Parameters"), fieldTable(rows));
  }
  const body = resolve(root, operation.requestBody);
  if (body.content) card.append(h("h4", {}, "Body"), contents(body.content));
  card.append(h("h4", {}, "Answers"), answerTable(root, operation.responses));
  return card;
}

const contents = (content) => h("p", {}, between(Object.entries(content).map(([type, { schema }]) => h("span", {}, h("code", {}, type), " ", typeOf(schema))), ", or "));

function answerTable(root, responses) {
  const rows = Object.entries(responses).map(([status, each]) => {
    const response = resolve(root, each);
    const refusal = Object.values(response.content ?? {}).some(({ schema }) => schema?.$ref?.endsWith("/Refusal"));
    const told = refusal ? between(response.description.split(", ").map((code) => h("code", {}, code)), " ") : response.description;
    return h("tr", {}, h("td", {}, status), h("td", {}, told), h("td", {}, refusal || !response.content ? "" : contents(response.content)));
  });
  return h("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Answers" }, h("table", {}, h("tbody", {}, rows)));
}

function schemaCard(name, schema) {
  const card = h("article", { class: "card", id: anchor(name) }, h("h3", {}, h("code", {}, name)), schema.description ? prose(schema.description) : null);
  const objects = schema.properties ? [schema] : (schema.oneOf ?? []).filter((each) => each.properties);
  for (const each of objects) {
    const rows = Object.entries(each.properties).map(([field, inner]) => [field, (each.required ?? []).includes(field), inner, inner.description]);
    card.append(fieldTable(rows));
  }
  if (!objects.length) card.append(h("p", {}, typeOf(schema), " ", h("span", { class: "note" }, boundsOf(schema))));
  for (const example of schema.examples ?? []) card.append(h("h4", {}, "Example"), h("pre", { tabindex: "0" }, JSON.stringify(example, null, 2)));
  return card;
}

function show(root) {
  const content = $("content");
  const index = $("index");
  content.replaceChildren(h("section", {}, h("h2", {}, root.info.title, " ", h("span", { class: "note" }, `API ${root.info.version}`)), prose(root.info.description)));
  index.replaceChildren();
  const operations = Object.entries(root.paths).flatMap(([path, item]) =>
    METHODS.filter((method) => method in item).map((method) => ({ path, method, operation: item[method] })),
  );
  for (const tag of root.tags) {
    const own = operations.filter(({ operation }) => operation.tags.includes(tag.name));
    if (!own.length) continue;
    content.append(h("section", {}, h("h2", {}, tag.name), prose(tag.description), own.map(({ path, method, operation }) => operationCard(root, path, method, operation))));
    const entries = own.map(({ path, method, operation }) => h("li", {}, h("a", { href: `#${operation.operationId}` }, `${method.toUpperCase()} ${path}`)));
    index.append(h("h2", {}, tag.name), h("ul", {}, entries));
  }
  const schemas = Object.entries(root.components.schemas);
  content.append(h("section", {}, h("h2", {}, "Schemas"), schemas.map(([name, schema]) => schemaCard(name, schema))));
  index.append(h("h2", {}, "Schemas"), h("ul", {}, schemas.map(([name]) => h("li", {}, h("a", { href: `#${anchor(name)}` }, name)))));
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
}

setUpTheme($("theme"));
fetch("/openapi.json")
  .then((response) => (response.ok ? response.json() : Promise.reject(new Error(`the server answered ${response.status}`))))
  .then(show, (error) => $("content").replaceChildren(h("p", { class: "note" }, `The description can't be read: ${error.message}`)));
