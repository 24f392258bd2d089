/** A command line that can't be read: the caller is shown the verb's help as well as the message. */
export class UsageError extends Error {
  /** What follows "Incorrect Usage" on the help's first line; runc says nothing there for a wrong number of arguments. */
  readonly headline: string;

  constructor(message: string, headline: string = `: ${message}`) {
    super(message);
    this.name = "UsageError";
    this.headline = headline;
  }
}
