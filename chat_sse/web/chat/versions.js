// @ts-check
/**
 * The versions of a question and of its answer: asking again or editing loses nothing.
 *
 * A chat's turns are the path that is shown. Where it forks, the turn there carries the other paths, each with
 * all that followed; the shown one's place among them is empty.
 */

/** @typedef {import("./store.js").Chat} Chat */
/** @typedef {import("./store.js").Turn} Turn */
/** @typedef {{at: number, of: number, previous: number, next: number}} Place at: from 1; previous, next: paths, or -1 */

/**
 * Show a new turn in the place of the one at `index`, which is kept with all that follows it.
 * @param {Chat} chat
 * @param {number} index
 * @param {Turn} turn
 */
export function addVersion(chat, index, turn) {
  const fork = putAway(chat, index);
  fork.shown = fork.paths.push([]) - 1;
  chat.turns.push({ ...turn, fork });
}

/**
 * Show another path from `index` on.
 * @param {Chat} chat
 * @param {number} index
 * @param {number} path
 */
export function showVersion(chat, index, path) {
  const fork = putAway(chat, index);
  const [head, ...rest] = fork.paths[path];
  fork.paths[path] = [];
  fork.shown = path;
  chat.turns.push({ ...head, fork }, ...rest);
}

/**
 * @param {Chat} chat
 * @param {number} index
 */
function putAway(chat, index) {
  const [{ fork = { paths: [[]], shown: 0 }, ...head }, ...rest] = chat.turns.splice(index);
  fork.paths[fork.shown] = [head, ...rest];
  return fork;
}

/**
 * Where a turn stands among the versions of its question, and of its answer to this one.
 * @param {Turn} turn
 * @returns {{question: Place, answer: Place}}
 */
export function placesOf(turn) {
  const { paths, shown } = turn.fork ?? { paths: [[]], shown: 0 };
  const heads = paths.map((path, index) => (index === shown ? turn : path[0]));
  const asked = heads.map((head) => heads.findIndex((other) => haveSameQuestion(head, other)));
  const answers = [...asked.keys()].filter((path) => asked[path] === asked[shown]);
  // Of another question the latest answer is shown.
  const questions = [...new Set(asked)].map((question) => asked.lastIndexOf(question));
  const here = questions.findIndex((path) => asked[path] === asked[shown]);
  return { question: place(questions, here), answer: place(answers, answers.indexOf(shown)) };
}

/**
 * @param {Turn} one
 * @param {Turn} other
 */
function haveSameQuestion({ question, images = [] }, { question: asked, images: shown = [] }) {
  // An old image may be no longer kept.
  const same = images.every((url, index) => url === shown[index] || !url || !shown[index]);
  return question === asked && images.length === shown.length && same;
}

/**
 * @param {number[]} paths
 * @param {number} at
 * @returns {Place}
 */
function place(paths, at) {
  return { at: at + 1, of: paths.length, previous: paths[at - 1] ?? -1, next: paths[at + 1] ?? -1 };
}
