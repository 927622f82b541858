# From $settings (defaults and tfvars) and $prices (the text of the price table), computes the lines of an estimate and alternatives.

def table: split("\n") | map(select(. != "") | split("\t")) | .[0] as $names
    | .[1:] | map([$names, .] | transpose | map({(.[0]): .[1]}) | add) | map({(.key): (. + {usd: (.usd | tonumber)})}) | add;

def cents: . * 100 | round / 100;

# The number of days in a cron list of weekdays, such as MON-FRI or SAT,MON.
def days:
    ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"] as $names
    | [split(",")[] | split("-") | map(. as $day | $names | index($day) // error("'\($day)' is not a day of the week")) as [$first, $last]
        | range($first; $first + 1 + (if $last == null then 0 else ($last - $first + 7) % 7 end)) % 7]
    | unique | length;

($prices | table) as $prices
| $settings as $s
| 730 as $month
# The hours per month of something that runs $a_day hours on each working day. A month has 730 / 168 weeks.
| def hours($a_day): $a_day * ($s.working_hours.days | days) * $month / 168;
  def line($what; $count; $hours; $key):
    ($prices[$key] // error("the price table has no price '\($key)'")) as $price
    | {what: $what, count: $count, hours: (if $price.per == "hour" then $hours else null end), usd_each: $price.usd, per: $price.per,
       usd: ($count * $price.usd * (if $price.per == "hour" then $hours else 1 end) | cents), stand_in: ($price.region == "stand-in"), as_of: $price.as_of};
  def sum: map(.usd) | add | cents;

  # schedule.tf starts the database 30 minutes before the tasks and stops it 15 minutes after them.
  ($s.working_hours.stop - $s.working_hours.start) as $open
| {tasks: hours($open), database: hours($open + 0.75)} as $stopped
| (if $s.multi_az then 2 else 1 end) as $copies
| ($s.cpu_architecture | ascii_downcase) as $architecture
| 4 as $endpoints
| ([$s.endpoint_zones, $s.zones] | min) as $zones

| def tasks($hours): [
    line("Tasks: vCPU"; $s.min_tasks * $s.task_cpu / 1024; $hours; "fargate_\($architecture)_vcpu"),
    line("Tasks: GB of memory"; $s.min_tasks * $s.task_memory / 1024; $hours; "fargate_\($architecture)_gb")];
  def database($hours): [line("Database: \($s.database_class)"; $copies; $hours; "database_\($s.database_class)")];

  [line("Endpoints: \($endpoints) in \($zones) zone\(if $zones == 1 then "" else "s" end)"; $endpoints * $zones; $month; "interface_endpoint")] as $isolation
| [line("NAT gateway"; 1; $month; "nat_gateway"), line("NAT gateway: its address"; 1; $month; "public_ipv4")] as $nat
| (tasks($month) + database($month)) as $always
| (tasks($stopped.tasks) + database($stopped.database) + [line("Alarm of the schedule"; 1; $month; "alarm")]) as $working
| ([
    line("Load balancer"; 1; $month; "load_balancer"),
    line("Load balancer: addresses"; $s.zones; $month; "public_ipv4")]
  + $isolation
  + (if $s.auto_stop then $working else $always end)
  + [
    line("Database: GB of storage"; $copies * $s.database_storage; $month; "database_storage"),
    line("Secrets"; (if $s.github_webhook_version > 0 then 3 else 2 end); $month; "secret"),
    line("Alarms"; 8; $month; "alarm")]
  + (if $s.customer_managed_key then [line("Key"; 1; $month; "kms_key")] else [] end)
  + (if $s.waf then [line("Web firewall"; 1; $month; "web_acl"), line("Web firewall: rules"; 3; $month; "web_acl_rule")] else [] end)
  ) as $lines
| {
    environment: $s.environment, region: $s.region, hours: $month, lines: $lines, total: ($lines | sum),
    with_nat: {lines: $nat, total: ($lines - $isolation + $nat | sum)},
    auto_stop: {on: $s.auto_stop, task_hours: ($stopped.tasks | cents), database_hours: ($stopped.database | cents),
      saves: (($always | sum) - ($working | sum) | cents)},
    prices_from: ([$lines[].as_of] | min), prices_to: ([$lines[].as_of] | max),
    notes: [$prices["database_\($s.database_class)"] | select(.region == "stand-in") | "\(.what): \(.note)"],
    not_counted: (["traffic (capacity units of the load balancer, data out, data through endpoints)", "logs by the gigabyte", "images",
      "dashboards and metrics of logs (beyond three and ten of an account, 3.00 and 0.30 each)",
      "backups beyond the size of the database"]
      + (if $s.container_insights then ["Container Insights"] else [] end) + (if $s.backup_vault then ["the backup vault"] else [] end)
      + ["taxes", "the free tier"])
  }
