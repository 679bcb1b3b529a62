/** The answers that can be undone, the newest last: what the server knows, and what an earlier visit left unsent. */

export class Given {
  constructor({ history, unsent, depth }) {
    const older = history.toReversed();
    const fresh = unsent.filter((one) => one.rev && !older.some((other) => same(one, other)));
    this.depth = depth;
    this.answers = [...older, ...fresh.map(named)];
  }

  get newest() {
    return this.answers.at(-1);
  }

  add(answer) {
    this.answers = [...this.answers, named(answer)].slice(-this.depth);
  }

  /** It was undone, or never stood. */
  remove(answer) {
    this.answers = this.answers.filter((each) => !same(each, answer));
  }
}

function named({ query, rev }) {
  return { query, rev };
}

function same(one, other) {
  return one.query === other.query && one.rev === other.rev;
}
