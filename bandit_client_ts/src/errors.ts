/** What can go wrong. The service's own words are in `message`; docs/errors.md lists all codes. */

/** Anything that this client throws of itself, except a TypeError for a wrong argument. */
export class BanditError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** The service refused the request, and nothing was changed by it. */
export class ServiceError extends BanditError {
  /**
   * @param code a stable word
   * @param field the field that caused it, or null
   * @param status of HTTP
   * @param requestId under which the service logged it
   * @param retryAfterS what the service said of it, in seconds
   */
  constructor(
    message: string,
    readonly code: string,
    readonly field: string | null,
    readonly status: number,
    readonly requestId: string,
    readonly retryAfterS: number | null,
  ) {
    super(message);
  }
}

/** There was no connection to the service, so that nothing was sent. */
export class NotReached extends BanditError {}

/** The request was sent and no answer came: it may have happened or not. */
export class NoAnswer extends BanditError {}

/** The answer is none that a bandit-service gives: another program is at this address. */
export class BadAnswer extends BanditError {}
