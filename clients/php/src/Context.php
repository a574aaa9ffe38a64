<?php

declare(strict_types=1);

namespace Fdpush;

/** The client whose event the back end handles, as in GatewayWorker's `Context`. */
final class Context
{
    /** The fd in the webhook's event. Methods such as `Gateway::sendToCurrentClient` use this fd. */
    public static string|int|null $client_id = null;

    /** Removes the current client after an event. */
    public static function clear(): void
    {
        self::$client_id = null;
    }
}
