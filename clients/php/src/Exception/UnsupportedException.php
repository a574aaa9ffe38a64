<?php

declare(strict_types=1);

namespace Fdpush\Exception;

/** A call of GatewayWorker that has no equivalent in fdpush. The message names the reason and the alternative. */
final class UnsupportedException extends \LogicException implements FdpushException
{
}
