// What the test reads: one line of JSON for each message a client hands over, and one for its end.

export const { url, key, question } = JSON.parse(process.argv[2]);

export const terminal = (data) => ["done", "error"].includes(JSON.parse(data).type);

export function message(id, data) {
  console.log(JSON.stringify({ id, data }));
}

export function ended(how) {
  console.log(JSON.stringify({ ended: how }));
}
