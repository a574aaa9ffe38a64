<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/** The interface of all exceptions of this client, except the exceptions for invalid arguments. */
interface FdpushException extends \Throwable
{
}
