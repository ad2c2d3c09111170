// A Web Worker of one tab that serves all tabs of the site. Its name is that of their channel.

import { serveChannel } from "./shared_clients";

serveChannel();
