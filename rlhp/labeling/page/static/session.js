/**
 * Requests to the server of the run, and signing in to it.
 *
 * Two things can go wrong with a request, and they are handled apart: `Away` is worth another try (no network, a
 * server or Redis that restarts), `Refused` is not.
 */

const TIMEOUT_MS = 10_000;
const AWAY = new Set([429, 500, 502, 503, 504]);

export class Away extends Error {}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** GET `path`, or POST `body` to it; what the server replied, as JSON. Throws Away or Refused. */
export async function call(path, body) {
  const response = await request(path, body);
  return response.json().catch(() => {
    throw new Away("the reply broke off");
  });
}

/** The bytes at `path`, as a Blob. Throws Away or Refused. */
export async function fetchBlob(path) {
  const response = await request(path);
  return response.blob().catch(() => {
    throw new Away("the clip broke off");
  });
}

async function request(path, body) {
  const options = { signal: AbortSignal.timeout(TIMEOUT_MS), credentials: "same-origin" };
  if (body !== undefined) {
    Object.assign(options, { method: "POST", headers: { "Content-Type": "application/json" } });
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options).catch(() => {
    throw new Away("the server does not answer");
  });
  if (response.ok) return response;
  const text = await response.json().then((reply) => reply.error, () => response.statusText);
  throw AWAY.has(response.status) ? new Away(text) : new Refused(response.status, text);
}

/**
 * What `/api/run` says, once somebody is signed in: by the token in the address, by the cookie of an earlier visit,
 * or by the token typed into the dialog `#sign-in`. Waits as long as that takes; `onAway` hears why.
 */
export async function signedIn({ onAway = () => {} } = {}) {
  let token = takeTokenFromAddress();
  for (;;) {
    try {
      if (token) await call("/api/session", { token });
      return await call("/api/run");
    } catch (error) {
      if (error instanceof Refused && [400, 401, 403, 422].includes(error.status)) {
        token = await askForToken(token ? error.message : "");
      } else {
        onAway(error);
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
    }
  }
}

// The link of another token, opened where this page is open already: the browser alone would change nothing.
addEventListener("hashchange", () => location.hash.startsWith("#token=") && location.reload());

/** The token of `#token=...`, which leaves the address bar and the history at once. */
function takeTokenFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) history.replaceState(null, "", location.pathname + location.search);
  return token;
}

function askForToken(problem) {
  const dialog = document.getElementById("sign-in");
  const field = dialog.querySelector("input");
  dialog.querySelector(".problem").textContent = problem;
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  if (!dialog.open) dialog.showModal();
  field.value = "";
  field.focus();
  return new Promise((resolve) => {
    const submitted = (event) => {
      event.preventDefault();
      dialog.close();
      resolve(field.value.trim());
    };
    dialog.querySelector("form").addEventListener("submit", submitted, { once: true });
  });
}
