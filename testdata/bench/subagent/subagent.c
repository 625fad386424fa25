/* A subagent of net-snmp's own library with one object, a string that can be read and written:
 * what iad behind snmpd is compared with. Usage: subagent SOCKET */
#include <net-snmp/net-snmp-config.h>
#include <net-snmp/net-snmp-includes.h>
#include <net-snmp/agent/net-snmp-agent-includes.h>

static char text[32] = "some text";
static size_t length = 9;
static const oid name[] = {1, 3, 6, 1, 4, 1, 8072, 9999, 9999, 1};

int main(int argc, char **argv) {
  netsnmp_watcher_info *watched;
  netsnmp_handler_registration *object;
  if (argc != 2)
    return 2;
  snmp_enable_stderrlog();
  netsnmp_ds_set_boolean(NETSNMP_DS_APPLICATION_ID, NETSNMP_DS_AGENT_ROLE, 1);
  netsnmp_ds_set_string(NETSNMP_DS_APPLICATION_ID, NETSNMP_DS_AGENT_X_SOCKET, argv[1]);
  init_agent("bench");
  watched = netsnmp_create_watcher_info6(text, length, ASN_OCTET_STR, WATCHER_SIZE_IS_PTR | WATCHER_MAX_SIZE, sizeof text, &length);
  object = netsnmp_create_handler_registration("text", NULL, name, OID_LENGTH(name), HANDLER_CAN_RWRITE);
  if (netsnmp_register_watched_scalar2(object, watched) != MIB_REGISTERED_OK)
    return 1;
  init_snmp("bench");
  for (;;)
    agent_check_and_process(1);
}
