<?php

declare(strict_types=1);

namespace Fdpush\Result;

use Fdpush\Internal\JsonObject;

/** The error of one push in a batch. The push has no effect. The server executes the other pushes of the batch. */
final class PushError
{
    public function __construct(
        /** The code of the error, such as `bad_request`. */
        public readonly string $errorCode,
        /** The error message, a text for people. */
        public readonly string $message,
        /** The `id` of the push, or null. */
        public readonly string|int|null $id,
    ) {
    }

    /** @internal */
    public static function read(JsonObject $answer): self
    {
        $error = $answer->objectOrNull('error') ?? throw new \UnexpectedValueException('the member "error" is missing');
        return new self($error->string('code'), $error->string('message'), $answer->id());
    }
}
